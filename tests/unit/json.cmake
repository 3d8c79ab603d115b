unit_test(json_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_test.c USES sluice_json)
unit_test(json_number_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_number_test.c USES sluice_json m)
unit_test(json_corpus_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_corpus_test.c USES sluice_json)
