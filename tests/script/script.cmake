# Tests that run the program from outside, in Python's standard library.
find_program(PYTHON3 python3 REQUIRED)
function(script_test name)
  add_test(NAME script/${name} COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/script/${name}.py $<TARGET_FILE:sluice> ${ARGN}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(script/${name} PROPERTIES LABELS script TIMEOUT 600)
endfunction()
if(TARGET sluice)
  script_test(engine_test)
  script_test(load_test $<TARGET_FILE:sluice-load>)
  set_tests_properties(script/load_test PROPERTIES RUN_SERIAL ON)
  if(SLUICE_SANITIZE)         # under a sanitizer time says nothing: fewer calls, and no bound on them
    set_tests_properties(script/load_test PROPERTIES ENVIRONMENT "SLUICE_LOAD_CALLS=600;SLUICE_LOAD_WITHIN_MS=60000")
  endif()
endif()
