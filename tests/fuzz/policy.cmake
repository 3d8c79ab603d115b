fuzz_target(policy SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_policy.c USES sluice_policy)
fuzz_target(policy_json SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_policy.c USES sluice_policy)
fuzz_target(entities SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_entities.c USES sluice_policy)
if(TARGET fuzz_policy)
  target_compile_definitions(fuzz_policy PRIVATE FUZZ_JSON=0)
  target_compile_definitions(fuzz_policy_json PRIVATE FUZZ_JSON=1)
endif()

# Both sides of the differential fuzzing: ours is this program, the reference's runs in Node (cedar/diff.py).
# A seeded part of it is a test; `./dev fuzz cedar` goes on.
add_executable(cedar_batch ${CMAKE_CURRENT_LIST_DIR}/cedar_batch.c)
target_link_libraries(cedar_batch PRIVATE sluice_flags sluice_policy)
add_test(NAME fuzz/cedar COMMAND ${PYTHON3} ${CMAKE_CURRENT_LIST_DIR}/cedar/diff.py $<TARGET_FILE:cedar_batch>
  --seed 20261126 --decisions 6000 WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(fuzz/cedar PROPERTIES FIXTURES_REQUIRED npm SKIP_RETURN_CODE 77 TIMEOUT 300 LABELS fuzz)
fuzz_target(cedar_schema SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_cedar_schema.c USES sluice_policy)
