set(journal_test_common ${CMAKE_CURRENT_LIST_DIR}/journal_test_common.c ${CMAKE_CURRENT_LIST_DIR}/memworld.c)
unit_test(journal_verify_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/journal_verify_test.c ${journal_test_common} USES sluice_journal)
unit_test(journal_crash_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/journal_crash_test.c ${journal_test_common} USES sluice_journal)
unit_test(journal_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/journal_test.c ${journal_test_common} USES sluice_journal)
