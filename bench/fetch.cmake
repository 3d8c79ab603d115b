add_executable(fetch_bench ${CMAKE_CURRENT_LIST_DIR}/fetch_bench.c)
target_link_libraries(fetch_bench PRIVATE sluice_fetch)
