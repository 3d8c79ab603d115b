foreach(name loop_test loop_stage_test loop_op_test)
  unit_test(${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c ${CMAKE_CURRENT_LIST_DIR}/loop_bed.c USES sluice_loop)
endforeach()
unit_test(loop_timer_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/loop_timer_test.c USES sluice_loop)
