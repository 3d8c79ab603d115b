fuzz_target(journal SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_journal.c ${CMAKE_SOURCE_DIR}/tests/unit/memworld.c
  ${CMAKE_SOURCE_DIR}/tests/unit/memworld_crash.c USES sluice_journal)
