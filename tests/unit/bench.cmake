unit_test(bench_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/bench_test.c USES bench_gen)
