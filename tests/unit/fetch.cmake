unit_test(fetch_pure_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/fetch_pure_test.c USES sluice_fetch)
foreach(name fetch_test fetch_pool_test fetch_way_test fetch_full_test)
  unit_test(${name}
    SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c ${CMAKE_CURRENT_LIST_DIR}/fetch_bed.c
      ${CMAKE_CURRENT_LIST_DIR}/fetch_upstream.c
    USES sluice_fetch)
endforeach()
foreach(name fetch_http2_test fetch_http2_pool_test fetch_http2_gone_test fetch_http2_hostile_test)
  unit_test(${name}
    SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c ${CMAKE_CURRENT_LIST_DIR}/fetch_bed.c
      ${CMAKE_CURRENT_LIST_DIR}/fetch_h2.c ${CMAKE_CURRENT_LIST_DIR}/fetch_upstream.c
    USES sluice_fetch)
endforeach()
