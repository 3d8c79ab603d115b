if(TARGET sluice)
  find_program(PYTHON3 python3 REQUIRED)
  add_test(NAME script/cli_test COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/script/cli_test.py $<TARGET_FILE:sluice>
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(script/cli_test PROPERTIES LABELS script TIMEOUT 600)
endif()
