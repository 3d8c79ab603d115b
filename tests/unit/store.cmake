unit_test(store_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/store_test.c
  USES sluice_store PkgConfig::SQLITE Threads::Threads)
