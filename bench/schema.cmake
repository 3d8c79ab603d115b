# schema_bench: nanoseconds per check of a compiled schema.
add_executable(schema_bench ${CMAKE_CURRENT_LIST_DIR}/schema_bench.c)
target_link_libraries(schema_bench PRIVATE sluice_json)
