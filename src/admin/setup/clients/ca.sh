
# ---- Trust alone --------------------------------------------------------------------------------

owner=ca

prepare() {
    begin
}

# The record says who needs the certificate, beside whoever else does.
set_up() {
    trust
    check_through_proxy "$check"
    remember ca trusts yes
    finish_set_up
}

undo() {
    undo_owner
    forget ca trusts yes
    finish_undo
}
