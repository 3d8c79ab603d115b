/*
 * switch.S -- void context_switch(void **save_sp, void *load_sp)
 *
 * Saves what the ABI says a callee must keep, stores the stack pointer, loads the other one, restores and returns into
 * it. A new stack is laid out by context_prepare() in task.c exactly as if it had called this function; context_entry
 * then finds the entry function in the first saved register (rbx, x19) and must never be returned to.
 *
 * void context_call(void (*fn)(void *), void *arg, void *sp)
 *
 * Calls fn(arg) on the stack that ends at `sp`, and returns on its own.  The frame pointer leads back, for profilers.
 *
 * Debian has no library for this that C programs would use without C++ (Boost.Context) or a signal mask system call per
 * switch (ucontext); forty instructions per architecture are easier to review than either.
 */
#if defined(__x86_64__)
/* System V ABI: rbx rbp r12-r15, the SSE control word and the x87 control word. */
    .text
    .globl  context_switch
    .hidden context_switch
    .type   context_switch, @function
    .p2align 4
context_switch:
    .cfi_startproc
    endbr64
    pushq   %rbp
    pushq   %rbx
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    subq    $8, %rsp
    stmxcsr (%rsp)
    fnstcw  4(%rsp)
    movq    %rsp, (%rdi)
    movq    %rsi, %rsp
    ldmxcsr (%rsp)
    fldcw   4(%rsp)
    addq    $8, %rsp
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    ret
    .cfi_endproc
    .size   context_switch, .-context_switch

    .globl  context_entry
    .hidden context_entry
    .type   context_entry, @function
    .p2align 4
context_entry:
    .cfi_startproc
    .cfi_undefined rip
    endbr64
    xorl    %ebp, %ebp
    callq   *%rbx
    ud2
    .cfi_endproc
    .size   context_entry, .-context_entry

    .globl  context_call
    .hidden context_call
    .type   context_call, @function
    .p2align 4
context_call:
    .cfi_startproc
    endbr64
    pushq   %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq    %rsp, %rbp
    .cfi_def_cfa_register %rbp
    andq    $-16, %rdx
    movq    %rdx, %rsp
    movq    %rdi, %rax
    movq    %rsi, %rdi
    callq   *%rax
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size   context_call, .-context_call

#elif defined(__aarch64__)
/* AAPCS64: x19-x28, fp, lr, d8-d15. */
    .text
    .globl  context_switch
    .hidden context_switch
    .type   context_switch, %function
    .p2align 4
context_switch:
    .cfi_startproc
    sub     sp, sp, #160
    stp     x19, x20, [sp, #0]
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    stp     x25, x26, [sp, #48]
    stp     x27, x28, [sp, #64]
    stp     x29, x30, [sp, #80]
    stp     d8,  d9,  [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    mov     x9, sp
    str     x9, [x0]
    mov     sp, x1
    ldp     x19, x20, [sp, #0]
    ldp     x21, x22, [sp, #16]
    ldp     x23, x24, [sp, #32]
    ldp     x25, x26, [sp, #48]
    ldp     x27, x28, [sp, #64]
    ldp     x29, x30, [sp, #80]
    ldp     d8,  d9,  [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    add     sp, sp, #160
    ret
    .cfi_endproc
    .size   context_switch, .-context_switch

    .globl  context_entry
    .hidden context_entry
    .type   context_entry, %function
    .p2align 4
context_entry:
    .cfi_startproc
    .cfi_undefined x30
    mov     x29, #0
    blr     x19
    brk     #0
    .cfi_endproc
    .size   context_entry, .-context_entry

    .globl  context_call
    .hidden context_call
    .type   context_call, %function
    .p2align 4
context_call:
    .cfi_startproc
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
    mov     x29, sp
    .cfi_def_cfa_register x29
    and     x2, x2, #-16
    mov     sp, x2
    mov     x9, x0
    mov     x0, x1
    blr     x9
    mov     sp, x29
    ldp     x29, x30, [sp], #16
    .cfi_def_cfa sp, 0
    ret
    .cfi_endproc
    .size   context_call, .-context_call
#else
#error "switch.S knows x86_64 and aarch64; a port is these functions and context_prepare() in task.c"
#endif
    .section .note.GNU-stack, "", %progbits
