add_executable(decide_bench ${CMAKE_SOURCE_DIR}/bench/decide_bench.c $<TARGET_OBJECTS:sluice_connectors>)
target_link_libraries(decide_bench PRIVATE sluice_call)
