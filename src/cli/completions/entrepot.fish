# fish completion of entrepot: it asks the program, which knows its images.

function __entrepot_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l candidates ($words[1] __complete -- $words[2..] "$current" 2>/dev/null)
    if test (count $candidates) -gt 0; and string match -q ':files*' -- $candidates[1]
        __fish_complete_path "$current"
    else if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    end
end

complete -c entrepot -f -k -a '(__entrepot_complete)'
