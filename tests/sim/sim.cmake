add_executable(sim_test ${CMAKE_CURRENT_LIST_DIR}/sim_test.c ${CMAKE_CURRENT_LIST_DIR}/check.c ${CMAKE_CURRENT_LIST_DIR}/clients.c
  ${CMAKE_CURRENT_LIST_DIR}/connector.c ${CMAKE_CURRENT_LIST_DIR}/dice.c ${CMAKE_CURRENT_LIST_DIR}/engine.c
  ${CMAKE_CURRENT_LIST_DIR}/simvfs.c ${CMAKE_CURRENT_LIST_DIR}/simworld.c ${CMAKE_CURRENT_LIST_DIR}/upstream.c
  ${CMAKE_SOURCE_DIR}/tests/unit/memworld.c)
target_link_libraries(sim_test PRIVATE sluice_flags sluice_runtime PkgConfig::SQLITE)
target_include_directories(sim_test PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
add_test(NAME sim/seeds COMMAND sim_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
add_test(NAME sim/twice COMMAND sim_test --twice --seeds 20 --from 100000 WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(sim/seeds sim/twice PROPERTIES LABELS sim TIMEOUT 600)
