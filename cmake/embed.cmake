# embed_files(OUT SYMBOL FILES...): adds a rule that makes OUT, a C file defining
#   const struct embedded SYMBOL[] = { { name, bytes, n }, ..., { 0 } };     (cli/demo.h)
# from FILES, whose bytes then live in the program. The files stay the only source.
set(EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(embed_files out symbol)
  list(JOIN ARGN "|" joined)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -D "OUT=${out}" -D "SYMBOL=${symbol}" -D "FILES=${joined}" -P ${EMBED_SCRIPT}
    DEPENDS ${ARGN} ${EMBED_SCRIPT} VERBATIM)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  string(REPLACE "|" ";" FILES "${FILES}")
  set(arrays "")
  set(rows "")
  set(k 0)
  foreach(file ${FILES})
    get_filename_component(name ${file} NAME)
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REPEAT "0x..," 20 row)
    string(REGEX REPLACE "(${row})" "\\1\n    " bytes "${bytes}")
    string(APPEND arrays "static const unsigned char file_${k}[] = {\n    ${bytes}\n};\n")
    string(APPEND rows "    { \"${name}\", (const char *)file_${k}, sizeof(file_${k}) },\n")
    math(EXPR k "${k} + 1")
  endforeach()
  file(WRITE ${OUT} "/* made by cmake/embed.cmake: edit the files it was made of */\n#include \"cli/demo.h\"\n\n"
    "${arrays}\nconst struct embedded ${SYMBOL}[] = {\n${rows}    { 0 },\n};\n")
endif()
