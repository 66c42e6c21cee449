from build_tools.cuda_report import read_ptxas, read_sass

PTXAS = """ptxas info    : 11 bytes gmem
ptxas info    : Compiling entry function '_Z6kernelIN4cuda3oneEEv' for 'sm_80'
ptxas info    : Function properties for _Z6kernelIN4cuda3oneEEv
24 bytes stack frame, 56 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size, 568 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6kernelIN4cuda3oneEEv' for 'sm_90a'
0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers
ptxas info    : Compiling entry function '_Z6kernelIN4cuda6notoneEEv' for 'sm_90a'
8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 99 registers
CPU seconds: 31.5
"""
SASS = """
Fatbin elf code:
================
arch = sm_80

	code for sm_80
		Function : _Z6kernelIN4cuda3oneEEv
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0030*/                   STL [R1], R4 ;
		Function : _Z6kernelIN4cuda6notoneEEv
        /*0010*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;

	code for sm_90a
		Function : _Z6kernelIN4cuda3oneEEv
        /*0010*/                   HGMMA.64x128x16.F32.BF16 R24, R4, gdesc[UR4], R24 ;
"""


def test_figures_of_ptxas_by_architecture() -> None:
    assert read_ptxas(PTXAS, "one") == {
        "sm_80": {"registers": "255", "stack B": "24", "spill stores B": "56", "spill loads B": "40"},
        "sm_90a": {"registers": "168", "stack B": "0", "spill stores B": "0", "spill loads B": "0"},
    }
    assert read_ptxas(PTXAS, "other") == {}


def test_instructions_by_architecture() -> None:
    assert read_sass(SASS, "one") == {
        "sm_80": {"HMMA": 2, "HGMMA": 0, "local memory": 1},
        "sm_90a": {"HMMA": 0, "HGMMA": 1, "local memory": 0},
    }
