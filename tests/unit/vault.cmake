unit_test(vault_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/vault_test.c ${CMAKE_CURRENT_LIST_DIR}/vault_bed.c
  USES sluice_vault Threads::Threads)
unit_test(vault_refresh_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/vault_refresh_test.c ${CMAKE_CURRENT_LIST_DIR}/vault_bed.c
  USES sluice_vault Threads::Threads)
unit_test(vault_connect_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/vault_connect_test.c ${CMAKE_CURRENT_LIST_DIR}/vault_bed.c
  USES sluice_vault Threads::Threads)
