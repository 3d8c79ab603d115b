# Tests that run the program from outside, in Python's standard library.
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
  script_test(house)
  # The example of docs/connectors.md as a program of its own: its tools are the only ones in it.
  set(example ${CMAKE_BINARY_DIR}/tests/docs_example.c)
  set(docs_gen ${CMAKE_SOURCE_DIR}/tests/script/docs_gen.py)
  add_custom_command(OUTPUT ${example} COMMAND ${PYTHON3} ${docs_gen} --example ${example}
    DEPENDS ${docs_gen} ${CMAKE_SOURCE_DIR}/docs/connectors.md VERBATIM)
  file(STRINGS ${CMAKE_SOURCE_DIR}/docs/connectors.md example_tools REGEX "^TOOL\\(")
  list(LENGTH example_tools example_tools)
  add_executable(docs_example ${CMAKE_SOURCE_DIR}/engine/cli/main.c ${example})
  target_compile_definitions(docs_example PRIVATE SLUICE_TOOLS_COUNTED=${example_tools})
  target_link_libraries(docs_example PRIVATE sluice_cli)
  script_test(docs_test $<TARGET_FILE:docs_example>)
endif()
