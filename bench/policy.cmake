add_executable(policy_bench ${CMAKE_SOURCE_DIR}/bench/policy_bench.c)
target_link_libraries(policy_bench PRIVATE sluice_policy)
