if(TARGET sluice_cli)
  unit_test(cli_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/cli_test.c USES sluice_cli)
  unit_test(cli_end_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/cli_end_test.c USES sluice_cli)
endif()
