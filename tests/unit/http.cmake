unit_test(http_parse_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/http_parse_test.c USES sluice_http)
unit_test(http_corpus_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/http_corpus_test.c USES sluice_http)
unit_test(http_server_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/http_server_test.c
  ${CMAKE_CURRENT_LIST_DIR}/http_server_fixture.c USES sluice_http)
unit_test(http_bounds_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/http_bounds_test.c
  ${CMAKE_CURRENT_LIST_DIR}/http_server_fixture.c USES sluice_http)
unit_test(http_turns_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/http_turns_test.c
  ${CMAKE_CURRENT_LIST_DIR}/http_server_fixture.c USES sluice_http)
unit_test(http_tls_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/http_tls_test.c
  ${CMAKE_CURRENT_LIST_DIR}/http_server_fixture.c USES sluice_http)
