# The simulated world (README.md): a program of its own, and three tests.
set(sim ${CMAKE_CURRENT_LIST_DIR})
add_executable(sim_test ${sim}/sim_test.c ${sim}/check.c ${sim}/clients.c ${sim}/connector.c ${sim}/dice.c
  ${sim}/engine.c ${sim}/provider.c ${sim}/simvfs.c ${sim}/simworld.c ${sim}/upstream.c
  ${CMAKE_SOURCE_DIR}/connectors/outlook/outlook.c ${CMAKE_SOURCE_DIR}/tests/unit/memworld.c
  ${CMAKE_SOURCE_DIR}/tests/unit/memworld_crash.c)
target_link_libraries(sim_test PRIVATE sluice_flags sluice_runtime PkgConfig::SQLITE)
target_include_directories(sim_test PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
if(SLUICE_SANITIZE)
  set(seeds 100)
else()
  set(seeds 500)
endif()
foreach(run "seeds;--seeds;${seeds}" "regressions;--list;${sim}/seeds.txt" "twice;--twice;--seeds;20;--from;100000"
    "steady;--steady")
  list(POP_FRONT run name)
  add_test(NAME sim/${name} COMMAND sim_test ${run} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(sim/${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
