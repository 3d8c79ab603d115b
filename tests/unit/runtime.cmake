unit_test(runtime_recover_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/runtime_recover_test.c ${journal_test_common} USES sluice_runtime)
