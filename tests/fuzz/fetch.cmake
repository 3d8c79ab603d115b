fuzz_target(fetch_reply SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_fetch_reply.c USES sluice_fetch)
