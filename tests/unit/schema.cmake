unit_test(schema_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/schema_test.c USES sluice_json Threads::Threads)
unit_test(schema_corpus_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/schema_corpus_test.c USES sluice_json)
