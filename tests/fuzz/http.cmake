fuzz_target(http SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_http.c USES sluice_http)
