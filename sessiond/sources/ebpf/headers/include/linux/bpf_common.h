/* Only the opcode macros are missing here, and no program of ours uses them. */
