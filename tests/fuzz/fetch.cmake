fuzz_target(fetch_reply SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_fetch_reply.c USES sluice_fetch)
fuzz_target(fetch_http2 SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_fetch_http2.c USES sluice_fetch)
