# json_bench: our JSON against jansson; built where jansson is installed.
pkg_check_modules(JANSSON IMPORTED_TARGET jansson)
if(JANSSON_FOUND)
  add_executable(json_bench ${CMAKE_CURRENT_LIST_DIR}/json_bench.c ${CMAKE_CURRENT_LIST_DIR}/json_bench_jansson.c)
  target_link_libraries(json_bench PRIVATE sluice_json PkgConfig::JANSSON)
endif()
