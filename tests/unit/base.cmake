foreach(part base_test base_crypto_test base_escape_test base_watch_test)
  unit_test(${part} SOURCES ${CMAKE_CURRENT_LIST_DIR}/${part}.c USES sluice_base)
endforeach()
