unit_test(json_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_test.c USES sluice_json)
unit_test(json_write_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_write_test.c USES sluice_json)
unit_test(json_number_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_number_test.c USES sluice_json m)
unit_test(json_corpus_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/json_corpus_test.c USES sluice_json)

# the same tests on the code for machines without vector instructions
set(json_dir ${CMAKE_SOURCE_DIR}/engine/json)
foreach(test json json_write)
  unit_test(${test}_portable_test
    SOURCES ${CMAKE_CURRENT_LIST_DIR}/${test}_test.c ${json_dir}/json.c ${json_dir}/json_number.c
      ${json_dir}/json_parse.c ${json_dir}/json_twice.c ${json_dir}/json_write.c
    USES sluice_base)
  target_compile_definitions(${test}_portable_test PRIVATE JSON_PORTABLE)
endforeach()
