unit_test(admin_memory_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/admin_memory_test.c USES sluice_admin)
if(NOT SLUICE_SANITIZE)
  target_compile_definitions(admin_memory_test PRIVATE SLUICE_JEMALLOC)
endif()
