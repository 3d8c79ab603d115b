# Tests that run the program from outside, in Python's standard library.
find_program(PYTHON3 python3 REQUIRED)
function(script_test name)
  add_test(NAME script/${name} COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/script/${name}.py $<TARGET_FILE:sluice> ${ARGN}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(script/${name} PROPERTIES LABELS script TIMEOUT 600)
endfunction()
if(TARGET sluice)
  script_test(engine_test)
  if(NOT SLUICE_SANITIZE)
    # thousands of connections under a sanitizer say nothing about time: there it is run smaller
    script_test(load_test $<TARGET_FILE:sluice-load>)
  endif()
endif()
