fuzz_target(policy SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_policy.c USES sluice_policy)
