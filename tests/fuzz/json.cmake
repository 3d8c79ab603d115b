fuzz_target(json SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_json.c USES sluice_json)
