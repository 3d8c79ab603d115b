fuzz_target(ratelimit SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_ratelimit.c USES sluice_ratelimit)
