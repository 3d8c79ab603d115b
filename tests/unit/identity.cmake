unit_test(identity_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/identity_test.c ${CMAKE_CURRENT_LIST_DIR}/identity_forge.c
  USES sluice_identity PkgConfig::OPENSSL Threads::Threads)
unit_test(identity_keys_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/identity_keys_test.c ${CMAKE_CURRENT_LIST_DIR}/identity_forge.c
  USES sluice_identity PkgConfig::OPENSSL Threads::Threads)
unit_test(identity_cache_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/identity_cache_test.c
  USES sluice_identity PkgConfig::OPENSSL Threads::Threads)
