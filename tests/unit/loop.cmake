unit_test(loop_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/loop_test.c USES sluice_loop)
unit_test(loop_timer_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/loop_timer_test.c USES sluice_loop)
