unit_test(runtime_recover_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/runtime_recover_test.c ${journal_test_common} USES sluice_runtime)
unit_test(runtime_reload_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/runtime_reload_test.c USES sluice_runtime)
target_link_options(runtime_reload_test PRIVATE -Wl,--wrap=mcp_announce)
