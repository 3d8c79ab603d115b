unit_test(http_parse_test SOURCES unit/http_parse_test.c USES sluice_http)
unit_test(http_corpus_test SOURCES unit/http_corpus_test.c USES sluice_http)
