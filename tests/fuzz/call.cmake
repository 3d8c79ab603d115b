fuzz_target(quota SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_quota.c USES sluice_call)
