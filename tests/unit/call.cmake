unit_test(call_quota_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_quota_test.c USES sluice_call)
unit_test(call_breaker_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_breaker_test.c USES sluice_call)
unit_test(call_vocabulary_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_vocabulary_test.c $<TARGET_OBJECTS:sluice_connectors> USES sluice_call)
unit_test(call_overload_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_overload_test.c USES sluice_call)
unit_test(call_listing_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_listing_test.c $<TARGET_OBJECTS:sluice_connectors> USES sluice_call)
unit_test(call_keys_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_keys_test.c USES sluice_call)
unit_test(call_registry_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/call_registry_test.c USES sluice_call)
