unit_test(policy_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/policy_test.c USES sluice_policy)
unit_test(policy_corpus_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/policy_corpus_test.c USES sluice_policy)
unit_test(policy_schema_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/policy_schema_test.c USES sluice_policy)
unit_test(policy_validate_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/policy_validate_test.c USES sluice_policy)
