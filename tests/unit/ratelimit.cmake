unit_test(ratelimit_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/ratelimit_test.c USES sluice_ratelimit)
target_link_options(ratelimit_test PRIVATE -Wl,--wrap=calloc)
unit_test(ratelimit_model_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/ratelimit_model_test.c USES sluice_ratelimit)
unit_test(ratelimit_stress_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/ratelimit_stress_test.c USES sluice_ratelimit)
