set(journal_test_common ${CMAKE_CURRENT_LIST_DIR}/journal_test_common.c ${CMAKE_CURRENT_LIST_DIR}/memworld.c
  ${CMAKE_CURRENT_LIST_DIR}/memworld_crash.c)
foreach(name journal_test journal_crash_test journal_verify_test journal_live_test)
  unit_test(${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c ${journal_test_common} USES sluice_journal)
endforeach()
