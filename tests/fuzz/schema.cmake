fuzz_target(schema SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_schema.c USES sluice_json)
