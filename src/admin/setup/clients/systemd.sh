
# ---- Whatever systemd runs ----------------------------------------------------------------------

takes=unit
unit=docker.service

prepare() {
    use_unit
    begin
    need_systemd
}

set_up() {
    set_up_unit
}

undo() {
    claim "$dropin"
    undo_owner
    finish_undo
}
