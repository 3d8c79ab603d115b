unit_test(mcp_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/mcp_test.c USES sluice_mcp)
foreach(name mcp_legacy_test mcp_modern_test mcp_stream_test mcp_policy_test)
  unit_test(${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c ${CMAKE_CURRENT_LIST_DIR}/mcp_bed.c
    ${CMAKE_CURRENT_LIST_DIR}/mcp_connector.c USES sluice_mcp)
endforeach()
