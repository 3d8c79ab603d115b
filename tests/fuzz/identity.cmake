fuzz_target(jwt SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_jwt.c USES sluice_identity)
