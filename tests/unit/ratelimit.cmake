foreach(name ratelimit_test ratelimit_fair_test ratelimit_learn_test ratelimit_model_test ratelimit_save_test
        ratelimit_stress_test ratelimit_table_test ratelimit_time_test)
  unit_test(${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c USES sluice_ratelimit)
endforeach()
target_link_options(ratelimit_table_test PRIVATE -Wl,--wrap=calloc)
target_link_libraries(ratelimit_fair_test PRIVATE m)

# the example of ratelimit/README.md, as its reader would build it
add_executable(ratelimit_example ${CMAKE_SOURCE_DIR}/ratelimit/example.c)
target_link_libraries(ratelimit_example PRIVATE sluice_flags sluice_ratelimit)
add_test(NAME unit/ratelimit_example COMMAND ratelimit_example)
