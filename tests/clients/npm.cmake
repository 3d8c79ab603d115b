# Tests that need npm packages: installed once, by the fixture; tests skip themselves with one line
# when that was not possible.
add_test(NAME clients/install COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/clients/install.py
  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(clients/install PROPERTIES FIXTURES_SETUP npm TIMEOUT 600)
function(npm_test name file)
  add_test(NAME ${name} COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/${file} $<TARGET_FILE:sluice>
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES FIXTURES_REQUIRED npm SKIP_RETURN_CODE 77 TIMEOUT 600 LABELS clients
    RUN_SERIAL ON)
endfunction()
if(TARGET sluice)
  npm_test(conformance/suite tests/conformance/conformance_test.py)
  npm_test(clients/real tests/clients/clients_test.py)
  npm_test(clients/emulate tests/clients/emulate_test.py)
endif()
